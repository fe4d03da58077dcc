// SPDX-License-Identifier: MIT
//! Dead letters, read by one thread while another writes.

use mod_rustbridge::dead::{DeadLetters, Letter, Which};

#[test]
fn listing_goes_on_while_letters_are_put_and_purged() {
    let folder = std::env::temp_dir().join(format!("rustbridge-dead-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    let (dead, report) = DeadLetters::open(&folder, 400_000);
    assert_eq!(report.problem, None);
    std::thread::scope(|scope| {
        let listing = std::thread::Builder::new()
            .spawn_scoped(scope, || {
                for _ in 0..200 {
                    let letters = dead.list(0, usize::MAX);
                    assert!(letters.is_sorted_by(|a, b| a.id < b.id));
                    assert!(letters.iter().all(|letter| letter.stored == [7; 300]));
                }
            })
            .unwrap();
        for round in 0..100 {
            for _ in 0..20 {
                dead.put(Letter { stored: vec![7; 300], ..Letter::default() });
            }
            dead.flush();
            if round % 10 == 0 {
                dead.purge(Which::All).unwrap();
            }
        }
        listing.join().unwrap();
    });
    drop(std::fs::remove_dir_all(&folder));
}
