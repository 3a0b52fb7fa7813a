//! Both engines, driven through the façade and real sockets on loopback: the same tests over each of them.

mod bounds;
mod lifecycle;
mod rig;
mod streams;
mod ticks;
