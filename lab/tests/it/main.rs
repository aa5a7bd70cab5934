//! One node from outside: the real binary, used as a person would and broken as the world would.

mod acme;
mod alerts;
mod attacks;
mod bad_input;
mod cache;
mod cluster;
mod contract;
mod deploying;
mod disk_full;
mod etcd;
mod images;
mod killed;
mod lives;
mod network;
mod probe;
mod protection;
mod requests;
mod rolling;
mod routes;
mod surviving;
mod tls;
mod together;
mod upgrade;
