"""What each model family looks like on disk: its tensor names and shapes, as data."""
