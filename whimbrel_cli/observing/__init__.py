"""What a mesh on this machine tells of itself: taken by OTLP, kept in files, shown as a tree."""
