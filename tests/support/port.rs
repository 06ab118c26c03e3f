//! Ports for brokers under test, each reserved for one test program for as long as it lives.
//!
//! A port that was free a moment ago may be taken by another test program before a broker listens there, and by an
//! outgoing connection of anybody if it is one that the system gives out itself. So these lie below that range, and a
//! locked file for each says that it is taken; the lock ends with the process, however it ends. Several test programs
//! include this file.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below 32,768, where Linux begins to give out ports by itself.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A port of 127.0.0.1 on which nobody listens, and which no other call gets, here or in another test program.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    /// Open until the process ends, and so are the locks.
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let directory = std::env::temp_dir().join("petrel-test-ports");
    if fs::create_dir(&directory).is_ok() {
        // Of whoever tests on this machine. Where that cannot be set, the others see whether they get files in it.
        let _for_all = fs::set_permissions(&directory, Permissions::from_mode(0o777));
    }
    // Programs that run side by side begin at different places, only to find a free one soon.
    let begin = u16::try_from(std::process::id() * 101 % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let offset =
            (u32::from(begin) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap();
        let path = directory.join(port.to_string());
        // A file of another user can be read and locked.
        let Ok(file) = File::open(&path).or_else(|_| File::create(&path)) else { continue };
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().unwrap().push(file);
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + (COUNT - 1))
}
