"""Tests of bisections."""
