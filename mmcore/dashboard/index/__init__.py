"""What pages look things up in: one SQLite file that can be thrown away and is built again."""
