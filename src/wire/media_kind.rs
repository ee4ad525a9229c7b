//! Which images and sounds FLM takes, and how it knows them: by their first bytes, never by what a client calls them
//! (SPEC §4.6).
//!
//! Called by `wire` (forms, images in messages), `net` (fetched images) and `proxy`. Must never look past the first bytes: what is
//! inside is the engine's to decode.

/// A format that FLM takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// PNG (RFC 2083 §3.1).
    Png,
    /// JPEG (ITU T.81, SOI and a marker).
    Jpeg,
    /// WebP (RFC 9649 §2.4).
    Webp,
    /// RIFF WAVE.
    Wav,
    /// MPEG audio layer III, with or without ID3.
    Mp3,
    /// FLAC (RFC 9639 §6).
    Flac,
    /// Ogg (RFC 3533 §6).
    Ogg,
    /// Audio in an MP4 container (ISO 14496-12 §4.3).
    M4a,
}

/// Bytes that are enough to know a format.
pub const ENOUGH: usize = 12;

impl MediaKind {
    /// Knows an image by its first bytes.
    #[must_use]
    pub fn of_image(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Some(Self::Png);
        }
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Some(Self::Jpeg);
        }
        (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")).then_some(Self::Webp)
    }

    /// Knows a sound by its first bytes.
    #[must_use]
    pub fn of_audio(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WAVE") {
            return Some(Self::Wav);
        }
        if bytes.starts_with(b"fLaC") {
            return Some(Self::Flac);
        }
        if bytes.starts_with(b"OggS") {
            return Some(Self::Ogg);
        }
        if bytes.get(4..8) == Some(b"ftyp") {
            return Some(Self::M4a);
        }
        (bytes.starts_with(b"ID3") || is_mpeg_frame(bytes)).then_some(Self::Mp3)
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::M4a => "audio/mp4",
        }
    }

    /// The name under which an engine gets it: engines go by the ending, and a client's own name goes nowhere.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Png => "image.png",
            Self::Jpeg => "image.jpg",
            Self::Webp => "image.webp",
            Self::Wav => "audio.wav",
            Self::Mp3 => "audio.mp3",
            Self::Flac => "audio.flac",
            Self::Ogg => "audio.ogg",
            Self::M4a => "audio.m4a",
        }
    }
}

/// The header of an MPEG audio frame (ISO 11172-3 §2.4.1.3): eleven bits of sync, then version, layer, bit rate and sampling
/// rate, each with one value that never occurs.
fn is_mpeg_frame(bytes: &[u8]) -> bool {
    let Some(&[sync, second, third]) = bytes.get(..3).and_then(|head| head.as_array()) else { return false };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    let (bit_rate, sampling_rate) = (third >> 4, third >> 2 & 3);
    sync == 0xff && second >= 0xe0 && version != 1 && layer == 1 && bit_rate != 15 && sampling_rate != 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        for (bytes, kind) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], Some(MediaKind::Png)),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some(MediaKind::Jpeg)),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some(MediaKind::Webp)),
            (b"RIFF\x24\0\0\0WAVEfmt ", None),
            (b"GIF89a\x01\0\x01\0", None),
            (b"\x89PNG", None),
            (b"", None),
            (b"<svg xmlns=", None),
        ] {
            assert_eq!(MediaKind::of_image(bytes), kind, "{bytes:?}");
        }
        for (bytes, kind) in [
            (&b"RIFF\x24\0\0\0WAVEfmt "[..], Some(MediaKind::Wav)),
            (b"ID3\x04\0\0", Some(MediaKind::Mp3)),
            (b"\xff\xfb\x90\x64", Some(MediaKind::Mp3)),
            (b"\xff\xf3\x40\xc4", Some(MediaKind::Mp3)),
            (b"fLaC\0\0\0\x22", Some(MediaKind::Flac)),
            (b"OggS\0\x02", Some(MediaKind::Ogg)),
            (b"\0\0\0\x20ftypM4A ", Some(MediaKind::M4a)),
            // A JPEG, AAC without a container, a bad sampling rate, a page.
            (b"\xff\xd8\xff\xe0", None),
            (b"\xff\xf1\x50\x80", None),
            (b"\xff\xfb\x9c\x64", None),
            (b"<html><body>", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(MediaKind::of_audio(bytes), kind, "{bytes:?}");
        }
    }
}
