//! Every engine of this build, driven through the façade and real sockets on loopback: the same tests over each of them.
//! With `--features monoio,glommio` the rivals stand in line too.

mod bounds;
mod datagrams;
mod lifecycle;
mod lookups;
mod rig;
mod steering;
mod streams;
mod ticks;
mod usage;
