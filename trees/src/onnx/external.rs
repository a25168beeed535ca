//! Weights that lie in other files: found, so that a model whose hash says nothing about its scores can be refused.

use super::Unsupported;
use super::wire::{Value, fields};

/// Messages that may hold tensors (onnx.proto).
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    SparseTensor,
    Tensor,
}

impl Message {
    /// What a field of it may lead to.
    fn inner(self, field: u64) -> Option<Message> {
        Some(match (self, field) {
            (Message::Model, 7) | (Message::Training, 1 | 2) | (Message::Attribute, 6 | 11) => Message::Graph,
            (Message::Model, 20) => Message::Training,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::SparseTensor, 1 | 2) => Message::Tensor,
            (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::SparseTensor,
            (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
            _ => return None,
        })
    }
}

/// Where the first tensor of `model` lies that is not in the file itself, as the file names the place.
///
/// # Errors
/// The file is no valid protobuf.
pub fn external_weights(model: &[u8]) -> Result<Option<String>, Unsupported> {
    // A stack of its own: graphs in attributes may be nested as deep as the file is long.
    let mut waiting = vec![(Message::Model, model)];
    while let Some((message, bytes)) = waiting.pop() {
        let mut is_external = false;
        let mut location = None;
        for field in fields(bytes) {
            let field = field?;
            match (message, field.number, field.value) {
                (Message::Tensor, 13, Value::Bytes(entry)) => {
                    is_external = true;
                    location = location.or(location_of(entry)?);
                }
                (Message::Tensor, 14, Value::Varint(place)) => is_external |= place != 0,
                (_, number, Value::Bytes(inner)) => {
                    waiting.extend(message.inner(number).map(|message| (message, inner)));
                }
                _ => {}
            }
        }
        if is_external {
            return Ok(Some(location.unwrap_or_default()));
        }
    }
    Ok(None)
}

/// The value of an entry whose key is `location`.
fn location_of(entry: &[u8]) -> Result<Option<String>, Unsupported> {
    let (mut is_location, mut value) = (false, None);
    for field in fields(entry) {
        let field = field?;
        match (field.number, field.value) {
            (1, Value::Bytes(key)) => is_location = key == b"location",
            (2, Value::Bytes(text)) => value = Some(String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
    }
    Ok(value.filter(|_| is_location))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Writer;
    use super::*;

    fn external(tensor: &mut Writer) {
        tensor.message(13, |entry| {
            entry.bytes(1, b"location").bytes(2, b"../weights.bin");
        });
        tensor.integer(14, 1);
    }

    /// A graph with a node whose attribute holds what `write` writes.
    fn with_attribute(graph: &mut Writer, write: impl FnOnce(&mut Writer)) {
        graph.message(1, |node| {
            node.message(5, write);
        });
    }

    #[test]
    fn weights_in_another_file_are_found_wherever_a_tensor_may_stand() {
        type Write<'a> = &'a dyn Fn(&mut Writer);
        let places: [Write<'_>; 8] = [
            &|model| {
                model.message(7, |graph| {
                    graph.message(5, external);
                });
            },
            &|model| {
                model.message(7, |graph| {
                    graph.message(15, |sparse| {
                        sparse.message(1, external);
                    });
                });
            },
            &|model| {
                model.message(7, |graph| {
                    with_attribute(graph, |attribute| {
                        attribute.message(5, external);
                    });
                });
            },
            &|model| {
                model.message(7, |graph| {
                    with_attribute(graph, |attribute| {
                        attribute.message(10, external);
                    });
                });
            },
            &|model| {
                model.message(7, |graph| {
                    with_attribute(graph, |attribute| {
                        attribute.message(6, |inner| {
                            inner.message(5, external);
                        });
                    });
                });
            },
            &|model| {
                model.message(7, |graph| {
                    with_attribute(graph, |attribute| {
                        attribute.message(11, |inner| {
                            with_attribute(inner, |attribute| {
                                attribute.message(23, |sparse| {
                                    sparse.message(2, external);
                                });
                            });
                        });
                    });
                });
            },
            &|model| {
                model.message(25, |function| {
                    function.message(7, |node| {
                        node.message(5, |attribute| {
                            attribute.message(5, external);
                        });
                    });
                });
            },
            &|model| {
                model.message(20, |training| {
                    training.message(2, |graph| {
                        graph.message(5, external);
                    });
                });
            },
        ];
        for (index, place) in places.iter().enumerate() {
            let mut model = Writer::default();
            place(&mut model);
            assert_eq!(external_weights(&model.0), Ok(Some("../weights.bin".to_owned())), "{index}");
        }
        let mut model = Writer::default();
        model.message(7, |graph| {
            graph.message(5, |tensor| {
                tensor.integer(14, 0).bytes(9, &[0; 4]);
            });
        });
        assert_eq!(external_weights(&model.0), Ok(None));
        assert!(external_weights(&[0xff]).is_err());
    }

    #[test]
    fn a_deep_file_is_read_to_its_end() {
        let mut inner = Writer::default();
        external(&mut inner);
        let mut graph = Writer::default();
        graph.bytes(5, &inner.0);
        for _ in 0..200 {
            let mut outer = Writer::default();
            with_attribute(&mut outer, |attribute| {
                attribute.bytes(6, &graph.0);
            });
            graph = outer;
        }
        let mut model = Writer::default();
        model.bytes(7, &graph.0);
        assert_eq!(external_weights(&model.0), Ok(Some("../weights.bin".to_owned())));
    }
}
