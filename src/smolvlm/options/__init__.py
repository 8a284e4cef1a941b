"""What callers may ask for: each option declared once, for every door. Light: no NumPy, no pydantic."""
