"""What a stream carries: recorded samples through the service, through Arrow Flight and through Triton."""
