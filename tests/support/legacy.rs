//! A folder of the old program with so many keys that hashing them can be left on the way.

use std::path::Path;

/// Keys in it: each is stretched by Argon2id, which takes some ten milliseconds at least.
const KEYS: usize = 400;

/// Makes the folder.
pub(crate) fn of_many_keys(folder: &Path) {
    std::fs::create_dir(folder).expect("a folder");
    let database = rusqlite::Connection::open(folder.join("old.db")).expect("opens");
    database
        .execute_batch(
            "CREATE TABLE apis (id INTEGER, name TEXT, model TEXT, engine_type TEXT, base_url TEXT);
             INSERT INTO apis VALUES (1, 'Home-Chat', 'llama3.2:3b', 'ollama', 'http://127.0.0.1:11434');
             CREATE TABLE api_keys (api_id INTEGER, label TEXT, key TEXT, is_active INTEGER)",
        )
        .expect("makes tables");
    for number in 0..KEYS {
        let key = format!("sk-old-4f9a1c7be0d24a6690e1b2c3{number:08}");
        database
            .execute("INSERT INTO api_keys VALUES (1, ?1, ?2, 1)", (format!("key {number}"), key))
            .expect("stores a key");
    }
}
