//! Open files that the process that works on one question hands to the one that started it: it may open them as the proxy's user, and
//! what is read from them later takes nobody's rights.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

/// So many files are handed over at most.
pub(super) const MAX_FILES: usize = 8;

/// Hands files over; those above [`MAX_FILES`] are left out.
///
/// # Errors
/// The other side is gone.
pub(super) fn give(socket: impl AsFd, files: &[File]) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = files.iter().take(MAX_FILES).map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FILES))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        message.push(SendAncillaryMessage::ScmRights(&files));
    }
    sendmsg(socket, &[IoSlice::new(b"f")], &mut message, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the files that were handed over, without waiting.
///
/// # Errors
/// There are none yet, or the other side is gone.
pub(super) fn take(socket: impl AsFd) -> io::Result<Vec<File>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FILES))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut message, flags)?;
    let mut files = Vec::new();
    for message in message.drain() {
        if let RecvAncillaryMessage::ScmRights(found) = message {
            files.extend(found.map(File::from));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Seek as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::{MAX_FILES, give, take};

    #[test]
    fn files_are_handed_over_as_far_as_they_may() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(take(&ours).is_err(), "nothing was given yet");
        let mut files: Vec<_> = (0..MAX_FILES + 2).map(|_| tempfile::tempfile().unwrap()).collect();
        files[0].write_all(b"hello").unwrap();
        give(&theirs, &files).unwrap();
        let mut taken = take(&ours).unwrap();
        assert_eq!(taken.len(), MAX_FILES);
        let mut text = String::new();
        taken[0].rewind().unwrap();
        taken[0].read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        give(&theirs, &[]).unwrap();
        assert!(take(&ours).unwrap().is_empty());
    }
}
