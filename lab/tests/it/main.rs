//! One node from outside: the real binary, used as a person would and broken as the world would.

mod acme;
mod alerts;
mod attacks;
mod backup;
mod bad_input;
mod cache;
mod cluster;
mod contract;
mod cut_off;
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
mod selftest;
mod surviving;
mod tls;
mod together;
mod upgrade;
