//! The HTTP server: routes as a pure function of request and view, a bounded accept loop.
//! Imports nothing of ours: it is handed views. Never waits for a platform.
