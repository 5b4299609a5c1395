"""What talks to the outside: stores, files, sockets, clocks. Adapters do not import each other."""
