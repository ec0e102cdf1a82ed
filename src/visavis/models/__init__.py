"""The networks: image encoder, resampler, MLLM and detokenizer. Pure torch: no data, no tracking."""
