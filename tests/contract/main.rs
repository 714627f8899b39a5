//! What others rely on: configuration files, published vectors, the bytes on the wire.

mod config;
