"""`smolvlm watch`: a camera or a file, what to watch for, and the events that were seen."""
