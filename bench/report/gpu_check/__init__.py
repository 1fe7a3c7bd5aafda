"""The check of a GPU as JSON, lines of text and a page."""
