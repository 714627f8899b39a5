//! Nodes as wholes: real sockets, real stores, several in one process.
