"""The web page: what visitors ask for, the queue, the jobs on disk, and what is shown of them."""
