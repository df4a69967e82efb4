"""The page's components: what is where, and what is asked when it is used. Gradio's, all of it.

Only `gradio_app.py` imports these; the rest of `sdconv.page` knows no component.
"""
