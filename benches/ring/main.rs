//! The TLS bench's baseline with ring: key exchange, signature and records are ring's, everything else is that of `benches/bare.rs`.

#[path = "../acceptor.rs"]
mod acceptor;
#[path = "../bare.rs"]
mod bare;

fn main() {
    let acceptor = acceptor::acceptor(rustls::crypto::ring::default_provider()).expect("an acceptor");
    bare::serve(Some(&acceptor));
}
