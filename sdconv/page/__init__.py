"""What the web page does, without the web: its folders, its jobs, its live views and its panels."""
