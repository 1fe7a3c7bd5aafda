"""Long trials of faults; tests/FAULTS.md has their counts."""
