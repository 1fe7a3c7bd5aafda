"""The page of a history: its data, packed, and its HTML."""
