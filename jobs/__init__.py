"""Work on collections of videos: listing, planning, the Ray graph, the table, the commands."""
