"""What a finished bundle is and does: its parts, its speed, its memory."""
