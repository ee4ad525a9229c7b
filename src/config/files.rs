//! `std::fs` with the path in every error, atomic replacement, and private modes from creation. (Stub.)
