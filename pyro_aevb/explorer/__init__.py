r"""A page with sliders for a trained pair's codes: their space, its pictures, and the page."""
