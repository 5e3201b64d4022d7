from .command_proxy import CommandProxy as CommandProxy
