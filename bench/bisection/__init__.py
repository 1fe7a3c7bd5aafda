"""`python -m bench bisect`: since when, and through which package?"""
