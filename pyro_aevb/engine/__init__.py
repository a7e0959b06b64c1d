r"""The engine: run a pair's effect handlers once, compile what they did, replay it."""
