//! A Redis client in its smallest form: one command at a time, blocking, over the server's
//! own socket file, so that controls work whatever TLS, port or proxy the tests use.

use std::{
    io::{BufRead, BufReader, Error, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longest wait for an answer: a server that is frozen fails the test, not the machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// A string, lossily read as UTF-8.
    Text(String),
    /// Several answers.
    List(Vec<Value>),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum RedisError {
    /// The server refused: its line, `ERR …`.
    Refused(String),
    /// The connection failed.
    Io(Error),
}

impl std::fmt::Display for RedisError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(line) => f.write_str(line),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RedisError {}

impl From<Error> for RedisError {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

impl Value {
    /// A string, or a number as text.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Nil | Self::List(_) => String::new(),
        }
    }
}

/// One connection.
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path) -> Result<Self, RedisError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn call(&mut self, arguments: &[&str]) -> Result<Value, RedisError> {
        let mut command = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            command.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        self.0.get_mut().write_all(command.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, RedisError> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| broken(&line));
        match kind {
            "+" => Ok(Value::Text(rest.to_owned())),
            "-" => Err(RedisError::Refused(rest.to_owned())),
            ":" => Ok(Value::Int(number()?)),
            "$" => usize::try_from(number()?).map_or(Ok(Value::Nil), |length| self.bulk(length)),
            "*" => {
                let items = usize::try_from(number()?).map_or(Ok(Vec::new()), |count| {
                    (0..count).map(|_| self.answer()).collect::<Result<Vec<_>, _>>()
                })?;
                Ok(Value::List(items))
            }
            _ => Err(broken(&line).into()),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<Value, RedisError> {
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn line(&mut self) -> Result<String, RedisError> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn broken(line: &str) -> Error {
    Error::new(std::io::ErrorKind::InvalidData, format!("no RESP: {line}"))
}
