//! What wears a server out (SPEC §5.14; SECURITY.md, case 24): floods of HTTP/2 frames and of keys that cost a hash, against the
//! real daemon. Each is ended or costs little, others are served meanwhile, and memory and processor are as before.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::guard::models;
use crate::home::{Home, wait_until};

/// Longer than any flood may go on before its connection is ended.
const LONG: Duration = Duration::from_secs(20);

fn connect(from: u8, port: u16) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 3, from), 0)).into()).expect("a loopback address");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("connects");
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(LONG)).expect("a deadline");
    stream.set_read_timeout(Some(LONG)).expect("a deadline");
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Method, scheme, path and host in HPACK's static table and literals (RFC 7541 §6).
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x86, 0x84][..], b"\x41\x09localhost"].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// Sends what `next` makes until the connection is ended; panics when it is not.
fn flood(name: &str, from: u8, port: u16, first: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) {
    let mut stream = connect(from, port);
    let mut reader = stream.try_clone().expect("a second handle");
    let reading = std::thread::spawn(move || {
        let mut piece = [0; 16_384];
        while reader.read(&mut piece).is_ok_and(|count| count > 0) {}
    });
    let opening = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
    stream.write_all(&[&opening, first].concat()).expect("sends");
    let began = Instant::now();
    for number in 0.. {
        let batch: Vec<u8> = (0..50).flat_map(|of| next(number * 50 + of)).collect();
        if stream.write_all(&batch).is_err() {
            break;
        }
        assert!(began.elapsed() < LONG, "{name}: the connection was not ended");
    }
    reading.join().expect("reads to the end");
}

/// Resident memory of a process in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Hundredths of a second that a process used of the processor (proc(5), utime and stime; `USER_HZ` is 100 on Linux).
fn used(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let (_, rest) = stat.rsplit_once(") ").expect("a state");
    // The first of these is field 3.
    let all: Vec<&str> = rest.split(' ').collect();
    all[11].parse::<u64>().expect("utime") + all[12].parse::<u64>().expect("stime")
}

/// Case 24.
#[test]
fn given_floods_of_frames_then_each_ends_scores_and_leaves_nothing_behind() {
    let home = Home::new();
    let url = home.start_proxy();
    home.answer(&["config", "set", "guard.exposure", "public"]);
    let key = home.create_key("good");
    let port = home.proxy_port().expect("a listener");
    let pid = home.owner().expect("a daemon");
    assert_eq!(models(&url, &key), 200);
    let before = resident(pid);
    let good = |name: &str| assert_eq!(models(&url, &key), 200, "others are served during {name}");
    let served = |name: &'static str, from: u8, first: &[u8], next: &(dyn Fn(u32) -> Vec<u8> + Sync)| {
        std::thread::scope(|threads| {
            let flooding = threads.spawn(|| flood(name, from, port, first, next));
            good(name);
            flooding.join().expect("ends");
            good(name);
        });
        wait_until(name, LONG, || {
            let address = format!("127.0.3.{from}");
            let events = home.answer(&["security", "events", "--ip", &address, "--type", "rule-hit"]);
            events.as_array().is_some_and(|events| {
                events
                    .iter()
                    .any(|event| event["details"].as_str().is_some_and(|details| details.starts_with("request_burst")))
            })
        });
    };
    served("rapid reset", 1, &[], &|number| {
        let stream = number * 2 + 1;
        [frame(1, 5, stream, &head(GET)), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    served("CONTINUATION", 2, &frame(1, 1, 1, &head(GET)), &|_| frame(9, 0, 1, &[0; 512]));
    served("empty CONTINUATION", 3, &frame(1, 1, 1, &head(GET)), &|_| frame(9, 0, 1, &[]));
    served("empty DATA", 4, &frame(1, 4, 1, &head(POST)), &|_| frame(0, 0, 1, &[]));
    served("PING", 5, &[], &|_| frame(6, 0, 0, &[7; 8]));
    served("SETTINGS", 6, &[], &|_| frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]));
    served("WINDOW_UPDATE", 7, &[], &|_| frame(8, 0, 0, &1_u32.to_be_bytes()));
    served("PRIORITY", 8, &[], &|number| frame(2, 0, number * 2 + 1, &[0, 0, 0, 0, 16]));
    served("frames that nobody knows", 9, &[], &|_| frame(0xbb, 0, 0, &[1, 2, 3]));
    // The work that they made is done.
    wait_until("the daemon rests", LONG, || {
        let begun = used(pid);
        std::thread::sleep(Duration::from_millis(500));
        used(pid) - begun <= 10
    });
    let after = resident(pid);
    assert!(after < before + 32, "resident memory went from {before} to {after} MiB");
}

/// Wrong keys of an id that exists cost a hash each (SPEC §5.1): the memory of it is given back.
#[test]
fn given_wrong_keys_that_are_hashed_then_the_memory_of_that_is_given_back() {
    let home = Home::new();
    let url = home.start_proxy();
    let key = home.create_key("good");
    let pid = home.owner().expect("a daemon");
    assert_eq!(models(&url, &key), 200);
    let before = resident(pid);
    let digits: Vec<char> = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".chars().collect();
    for number in 0..24 {
        let body = format!("{}{number:043}", &key[..13]);
        let mut rest = crc32fast::hash(body.as_bytes());
        let mut checksum = ['0'; 6];
        for digit in checksum.iter_mut().rev() {
            *digit = digits[(rest % 62) as usize];
            rest /= 62;
        }
        assert_eq!(models(&url, &format!("{body}{}", checksum.iter().collect::<String>())), 401);
    }
    let after = resident(pid);
    assert!(after < before + 24, "resident memory went from {before} to {after} MiB: a run takes 19");
    assert_eq!(models(&url, &key), 200);
}
