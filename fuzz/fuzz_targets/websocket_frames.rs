//! Frames of a WebSocket: the same parts and outcome however they are cut, every payload within what came, nothing told twice.
#![no_main]

use gateway::inspect::frames::{Frames, Malformed, Part, Side, unmask};
use libfuzzer_sys::fuzz_target;

/// Payloads and ends in order, with the outcome.
fn read(
    side: Side,
    data: &[u8],
    size: usize,
) -> (Vec<u8>, Vec<(usize, String)>, Option<Malformed>) {
    let mut frames = Frames::new(side);
    let (mut payload, mut ends) = (Vec::new(), Vec::new());
    let mut outcome = None;
    for piece in data.chunks(size) {
        let read = frames.push(piece, &mut |part| match part {
            Part::Header => {}
            Part::Payload {
                at, length, mask, ..
            } => unmask(&piece[at..at + length], mask, &mut payload),
            Part::End { kind } => ends.push((payload.len(), format!("{kind:?}"))),
        });
        if let Err(why) = read {
            assert_eq!(
                frames.push(piece, &mut |_| panic!("told after an error")),
                Err(why)
            );
            outcome = Some(why);
            break;
        }
    }
    (payload, ends, outcome)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else {
        return;
    };
    for side in [Side::Client, Side::Server] {
        let whole = read(side, data, data.len().max(1));
        assert!(whole.0.len() <= data.len());
        assert_eq!(read(side, data, usize::from(size).max(1)), whole);
    }
});
