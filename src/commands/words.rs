//! [`Commands`] as 32-bit words, which is what the browser's host reads (`web/src/words.ts`).
//!
//! The first word is [`VERSION`]. Each command begins with a word `code + 256 * length`, `length` words follow.
//!
//! | code | command | words |
//! |---|---|---|
//! | 1 | buffer | memory, size |
//! | 2 | parameters | the contents, word by word |
//! | 3 | dispatch | kernel, step, workgroups x, y, z, then memory, offset, size of every binding |
//! | 4 | readback | memory, offset, size |
//! | 5 | left for the next stage | memory, offset, size |
//! | 6 | output that stays on the device | 1 if this is its own memory, memory, offset, size |
//!
//! Memory is `kind + 8 * number`, with the kinds 0 constant, 1 input, 2 arena, 3 parameters, 4 output. Offsets and sizes count
//! words of four bytes.

use super::{Commands, Dispatch, Kept, Memory, Range};
use crate::error::{Error, Result};

/// The first word; changes with the format.
pub const VERSION: u32 = 0x7457_0003;

const BUFFER: u32 = 1;
const PARAMETERS: u32 = 2;
const DISPATCH: u32 = 3;
const READBACK: u32 = 4;
const LEFT: u32 = 5;
const KEPT: u32 = 6;

/// The words of `commands`.
///
/// # Errors
/// [`Error::Limit`] for a number that does not fit its word.
pub fn encode(commands: &Commands) -> Result<Vec<u32>> {
    let mut out = vec![VERSION];
    for &(memory, bytes) in &commands.buffers {
        push(&mut out, BUFFER, &[memory_word(memory)?, word_count(bytes)?])?;
    }
    if !commands.parameters.is_empty() {
        let words = commands.parameters.as_chunks().0.iter();
        push(&mut out, PARAMETERS, &words.map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>())?;
    }
    for dispatch in &commands.dispatches {
        let [x, y, z] = dispatch.workgroups;
        let mut words = vec![word(dispatch.kernel)?, word(dispatch.step)?, x, y, z];
        for range in &dispatch.bindings {
            words.extend(range_words(range)?);
        }
        push(&mut out, DISPATCH, &words)?;
    }
    for range in &commands.readbacks {
        push(&mut out, READBACK, &range_words(range)?)?;
    }
    for range in &commands.left {
        push(&mut out, LEFT, &range_words(range)?)?;
    }
    for Kept { range, is_own } in &commands.kept {
        let [memory, offset, size] = range_words(range)?;
        push(&mut out, KEPT, &[u32::from(*is_own), memory, offset, size])?;
    }
    Ok(out)
}

/// The commands that `words` are.
///
/// # Errors
/// [`Error::Parse`] for words that [`encode`] does not give, with their position.
pub fn decode(words: &[u32]) -> Result<Commands> {
    let wrong = |at: usize, message: &str| Error::parse(format!("commands, word {at}"), message);
    if words.first() != Some(&VERSION) {
        return Err(wrong(0, "these are no commands of this version"));
    }
    let (mut commands, mut at) = (Commands::default(), 1);
    while let Some(&head) = words.get(at) {
        let body = words.get(at + 1..).and_then(|rest| rest.get(..(head >> 8) as usize));
        let body = body.ok_or_else(|| wrong(at, "the command is cut off"))?;
        match (head & 0xff, body) {
            (BUFFER, &[memory, size]) => commands.buffers.push((memory_of(memory), bytes(size))),
            (PARAMETERS, words) => commands.parameters.extend(words.iter().flat_map(|w| w.to_le_bytes())),
            (DISPATCH, &[kernel, step, x, y, z, ref bindings @ ..]) if bindings.len() % 3 == 0 => {
                let bindings = bindings.as_chunks().0.iter().map(range_of).collect();
                let (kernel, step) = (kernel as usize, step as usize);
                commands.dispatches.push(Dispatch { kernel, step, bindings, workgroups: [x, y, z] });
            }
            (READBACK, &[memory, offset, size]) => commands.readbacks.push(range_of(&[memory, offset, size])),
            (LEFT, &[memory, offset, size]) => commands.left.push(range_of(&[memory, offset, size])),
            (KEPT, &[is_own @ (0 | 1), memory, offset, size]) => {
                commands.kept.push(Kept { range: range_of(&[memory, offset, size]), is_own: is_own == 1 });
            }
            (code, body) => {
                let message = format!("there is no command {code} of {} words", body.len());
                return Err(wrong(at, &message));
            }
        }
        at += 1 + body.len();
    }
    Ok(commands)
}

fn push(out: &mut Vec<u32>, code: u32, words: &[u32]) -> Result<()> {
    let length = word(words.len())?;
    let head = length.checked_mul(256).map(|length| length + code);
    out.push(head.ok_or_else(|| Error::limit("commands", format!("a command of {length} words")))?);
    out.extend(words);
    Ok(())
}

fn word(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::limit("commands", format!("{number} does not fit a word")))
}

fn word_count(bytes: u64) -> Result<u32> {
    let whole = bytes.is_multiple_of(4).then_some(bytes / 4).and_then(|words| u32::try_from(words).ok());
    whole.ok_or_else(|| Error::limit("commands", format!("{bytes} bytes are no number of words below 2^32")))
}

fn bytes(words: u32) -> u64 {
    u64::from(words) * 4
}

fn memory_word(memory: Memory) -> Result<u32> {
    let (kind, number) = match memory {
        Memory::Constant(number) => (0, number),
        Memory::Input(number) => (1, number),
        Memory::Arena(number) => (2, number),
        Memory::Parameters => (3, 0),
        Memory::Output(number) => (4, number),
    };
    word(number.saturating_mul(8).saturating_add(kind))
}

fn memory_of(word: u32) -> Memory {
    let number = (word / 8) as usize;
    match word % 8 {
        0 => Memory::Constant(number),
        1 => Memory::Input(number),
        2 => Memory::Arena(number),
        4 => Memory::Output(number),
        _ => Memory::Parameters,
    }
}

fn range_words(range: &Range) -> Result<[u32; 3]> {
    Ok([memory_word(range.memory)?, word_count(range.offset_bytes)?, word_count(range.size_bytes)?])
}

fn range_of(&[memory, offset, size]: &[u32; 3]) -> Range {
    Range { memory: memory_of(memory), offset_bytes: bytes(offset), size_bytes: bytes(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Commands {
        let range = |memory, offset_bytes, size_bytes| Range { memory, offset_bytes, size_bytes };
        Commands {
            buffers: vec![(Memory::Input(0), 64), (Memory::Arena(3), 4 << 30)],
            parameters: vec![7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            dispatches: vec![Dispatch {
                kernel: 2,
                step: 9,
                bindings: vec![
                    range(Memory::Constant(11), 0, 16),
                    range(Memory::Arena(3), 256, 32),
                    range(Memory::Parameters, 0, 16),
                ],
                workgroups: [4, 1, 65535],
            }],
            readbacks: vec![range(Memory::Arena(3), 256, 4)],
            left: vec![range(Memory::Input(2), 0, 16)],
            kept: vec![Kept { range: range(Memory::Output(1), 0, 32), is_own: true }],
        }
    }

    #[test]
    fn words_are_as_documented() {
        #[rustfmt::skip]
        let want = [
            0x7457_0003,
            1 + 256 * 2, 1, 16,
            1 + 256 * 2, 2 + 8 * 3, 1 << 30,
            2 + 256 * 2, 7, 0xffff_ffff,
            3 + 256 * 14, 2, 9, 4, 1, 65535, 8 * 11, 0, 4, 2 + 8 * 3, 64, 8, 3, 0, 4,
            4 + 256 * 3, 2 + 8 * 3, 64, 1,
            5 + 256 * 3, 1 + 8 * 2, 0, 4,
            6 + 256 * 4, 1, 4 + 8, 0, 8,
        ];
        assert_eq!(encode(&commands()).unwrap(), want);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(decode(&encode(&commands()).unwrap()).unwrap(), commands());
        assert_eq!(decode(&[VERSION]).unwrap(), Commands::default());
    }

    #[test]
    fn faults_are_refused_with_their_place() {
        let rows: [(&[u32], &str); 4] = [
            (&[], "commands, word 0: these are no commands of this version"),
            (&[1], "commands, word 0: these are no commands of this version"),
            (&[VERSION, 1 + 256 * 2, 0, 4, 4 + 256 * 3, 0], "commands, word 4: the command is cut off"),
            (&[VERSION, 9], "commands, word 1: there is no command 9 of 0 words"),
        ];
        for (words, want) in rows {
            assert_eq!(decode(words).unwrap_err().to_string(), want);
        }
        let odd = Commands { buffers: vec![(Memory::Input(0), 6)], ..Commands::default() };
        assert!(encode(&odd).is_err());
    }
}
