"""What a training leaves on the way, so that it can be killed anywhere and go on."""
