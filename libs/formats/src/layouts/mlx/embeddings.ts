/** Whether a module of this name is an embedding table: MLX stores its factors as if it were a linear module. */
export function isEmbeddingName(name: string): boolean {
  return /(^|\.)(embed_tokens|tok_embeddings|word_embeddings|wte|wpe)$/.test(name);
}
