"""Tables and the connections to where they are."""
