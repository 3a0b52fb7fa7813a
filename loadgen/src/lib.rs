//! Load generator of Trinity Beast.
