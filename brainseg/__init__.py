"""Measures FLAIR abnormality (lower-grade glioma) in brain MRI. Research use only."""

__version__ = "0.1.0"
