# Connects and then becomes another program, again and again, at varying moments: the caller that
# tries to borrow an identity (T-W1). Arguments: socket path, tries.
# A child says "A" while it is perl; "B" comes from the program it execs into, over the same socket.
use strict; use warnings; use Socket;
my ($path, $tries) = @ARGV;
$^F = 255; # descriptors survive exec
for my $try (1 .. $tries) {
  my $pid = fork();
  die "fork: $!" unless defined $pid;
  if ($pid == 0) {
    socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
    connect($s, sockaddr_un($path)) or die "connect: $!";
    syswrite($s, "A") if $try % 2;
    select(undef, undef, undef, 0.0005 * ($try % 5)) if $try % 5;
    my $fd = fileno($s);
    # Three in four keep the executable and change only the image; the rest change the file too.
    exec('/bin/sh', '-c', "printf B >&$fd; read -r x <&$fd") unless $try % 4;
    exec($^X, '-e', "open(my \$s, '+<&=', $fd); syswrite(\$s, 'B'); sysread(\$s, my \$x, 1)");
  }
  waitpid($pid, 0);
}
