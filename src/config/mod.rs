//! The configuration: figment in, a checked `Config` out, or every problem with its place and what was expected.
//! Never reads the environment itself (it is handed in) and never starts anything.
