//! Arrays of md.
