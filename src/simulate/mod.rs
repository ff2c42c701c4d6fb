//! The two platforms as values: worlds that live, answer as the real servers do, and know the truth about themselves.
//! Used by `demo`, `simulate`, tests and benchmarks; never by the daemon on real platforms.
