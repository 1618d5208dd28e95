"""Encoders of pictures, text and sound, what joins them and teaches them, how they are kept."""
