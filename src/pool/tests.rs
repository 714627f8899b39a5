//! Tests of the pool.


