"""Data sets on disk: PNG folders and COCO, whole or recognisably incomplete."""
