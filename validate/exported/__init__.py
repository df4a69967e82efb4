"""The export itself: a bundle against its sources, and its graphs against baked constants."""
