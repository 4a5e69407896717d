"""A process that serves: its sockets, its signals, and the file that says where it is."""
