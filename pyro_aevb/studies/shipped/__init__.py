r"""The studies that come with the package, one file of declarations each."""
